"""Fashion-MNIST: 70000 grey images of clothes, 28 x 28 pixels, in ten classes."""

from __future__ import annotations

from pathlib import Path

from training.data.mnist import IDXImages

# The SHA-256 of the four files as their authors published them.
CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
SOURCE = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


class FashionMNIST(IDXImages):
    """The ten kinds of clothes, as `[1, 28, 28]` images with pixels from 0 to 255.

    The official 10000 test images are the test split; the 60000 training images become the other four.

    The arguments are those of :class:`training.data.mnist.IDXImages`; without `root`, the folder of Debian's package
    `dataset-fashion-mnist` is used, else the cache of an earlier download (30 MB).
    """

    title = "Fashion-MNIST"
    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    checksums = CHECKSUMS
    published = SOURCE
    folder_name = "fashion-mnist"
    debian = DEBIAN_FOLDER
    hint = ", or install Debian's package with `apt install dataset-fashion-mnist`"
