"""What the chapters measure: one file a chapter, under the chapter's name.

A chapter shows what it teaches; the sweeps around it are here, and the table of claims asks the
same functions.
"""
