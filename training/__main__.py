"""`python -m dubio.training` is `dubio-train`."""

from dubio.training.cli.main import main

if __name__ == "__main__":
    main()
