"""Reports: what is shown of results, on the terminal, as Markdown, as HTML and as plots."""
