"""Figures, tables and pages for people: of a run, of an audit. All HTML is in templates/."""
