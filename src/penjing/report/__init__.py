"""Reports: what is shown of results, on the terminal, as Markdown and as plots."""
