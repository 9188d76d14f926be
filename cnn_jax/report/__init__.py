"""Reports of studies: tables and claims over several seeds, and an HTML page.

`tables` has one number per network and its formatting, `claims` decides what the seeds
support, and `page` renders sections of text, figures, tables and claims as one file.
"""
