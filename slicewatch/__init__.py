"""Slicewatch's domain: screening, assessment and custody of medical image studies.

Nothing here knows of Azure Functions; the doors, the orchestrators and the activities call in.
"""

__version__ = "0.1.0"
