"""Forensic evidence: what pixels and headers tell of a study that was changed on its way.

`features` and `evidence` measure one object at screening time, in a few numbers that travel with
its slice result; the other modules compare those numbers over a study, as lines of
`slicewatch.integrity.CHECKS`. They report evidence, and never that something is authentic.
"""
