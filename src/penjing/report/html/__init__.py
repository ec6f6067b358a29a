"""The report as a page for a browser: its template, charts and tables."""
