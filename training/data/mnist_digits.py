"""MNIST: 70000 grey images of handwritten digits, 28 x 28 pixels (LeCun, Cortes and Burges)."""

from __future__ import annotations

from training.data.mnist import IDXImages

# The SHA-256 of the four files as their authors published them.
CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/"


class MNIST(IDXImages):
    """The ten digits, as `[1, 28, 28]` images with pixels from 0 to 255.

    The arguments are those of :class:`training.data.mnist.IDXImages`; without `root`, the cache of an earlier download
    (11 MB) is used.
    """

    title = "MNIST"
    classes = tuple(str(digit) for digit in range(10))
    checksums = CHECKSUMS
    published = SOURCE
    folder_name = "mnist"
