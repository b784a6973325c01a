"""Library of the programs that prepare data sets."""
