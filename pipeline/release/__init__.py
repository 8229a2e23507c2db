"""Numbers that leave the system: a table whose small cells are hidden, and a differentially private one."""
