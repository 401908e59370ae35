"""Measurements of the chapters: one file per chapter, under the chapter's name.

A chapter shows what it teaches; the sweeps around it are here, and the table of claims calls the
same functions.
"""
