"""Results as DICOM objects: structured reports, presentation states, and their way to a PACS.

What a review says of a study, in the form that other systems read; see ``docs/reporting.md``.
Nothing of the forensic lane enters these objects: every reader of the study is served them.
"""
