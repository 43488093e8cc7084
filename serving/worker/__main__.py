"""`python -m serving.worker`: started by `process.py`, never by hand."""

from serving.worker.host import main

if __name__ == "__main__":
    main()
