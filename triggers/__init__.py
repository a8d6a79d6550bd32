"""The doors: HTTP, blob and timer functions; they parse, hand on to ``slicewatch`` and answer.

One function a file, named like its file; ``bp`` is its blueprint. Beside them: `admission`, what
every door does with objects it got, and `responses`, how every door answers.
"""
