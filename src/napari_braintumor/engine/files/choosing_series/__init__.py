"""The table of series: what each series of an examination is, which are used for a case, and what the user changed."""
