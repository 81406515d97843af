"""A script a receiver, run by the interpreter of an environment that has the receiver's own package.

Each takes the folder of an export, reads it with that package alone, and prints what it found as one line of
JSON, its last. None imports anything of this project.
"""
