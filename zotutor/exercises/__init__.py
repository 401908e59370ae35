"""Checkers for the book's exercises: the same in Colab, on a laptop and in CI.

Each takes the student's function or answer, and prints "Correct" or raises an AssertionError that
gives a hint.
"""
