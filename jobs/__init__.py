"""One file or folder per `python -m jobs.NAME`. Jobs meet in artifacts, not in imports of each other."""
