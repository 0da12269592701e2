"""How the console draws: what frames it (`chrome`), and `views` of `panels`, tables and `logs`; `calls` is
one of them.

A `canvas` is asked for its lines and repaints those that changed. A line is spans, and a span is a text with
one of the `tones`. A `table` has `columns`; `charts` are figures as lines; `glyphs` are the signs that this
terminal can show; `details` and `names` are rows in full. Nothing here changes the island; only `names`
asks it something: what a name stood for.

Uses: `watch`, for what is known, and `words`. It knows the app around it as `canvas.Surroundings` alone.
"""
