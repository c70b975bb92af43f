"""Reports: self-contained HTML pages made from the files of a run folder."""
