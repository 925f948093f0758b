"""``python -m ndtwin``: the same as the console script."""

from ndtwin.cli import main

if __name__ == "__main__":
    main()
