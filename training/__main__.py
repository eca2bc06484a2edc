"""`python -m training` is `dubio-train`."""

from training.cli import main

if __name__ == "__main__":
    main()
