"""`python -m vl2v`, for torchrun and for machines without the script on the path."""

from vl2v.cli import main

if __name__ == "__main__":  # a process that spawn starts imports this module again
    main()
