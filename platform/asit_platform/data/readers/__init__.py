"""Data sets as they lie on disk -> listings of clips: one file a family; no sound is decoded."""
