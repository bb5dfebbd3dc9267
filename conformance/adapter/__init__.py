"""`exec:./adapter`: a driver or a manager in any language, behind JSON lines on standard input and output."""
