"""The work: one activity a file, thin; each calls into ``slicewatch``.

An activity can run twice, at any time, on another machine: each of these gives the same answer
and leaves the same blobs. What raises is a transient fault, for the caller's retry policy, or a
defect; bad data is a result with a reason.
"""
