"""Charts as inline SVG, without scripts. Colours come from the CSS variables of report.css: light and dark."""
