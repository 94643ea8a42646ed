"""The commands of `python -m trainer`: a file each, with its `Options` and `run(options)`.

They import TensorFlow only once they run, so that a wrong flag is answered at once.
"""
