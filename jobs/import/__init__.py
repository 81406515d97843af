"""The job `jobs.import`. No module can import it by this name, which is a word of Python: it is run."""
