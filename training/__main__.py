"""`python -m training` is `dubio-train`."""

from training.cli.main import main

if __name__ == "__main__":
    main()
