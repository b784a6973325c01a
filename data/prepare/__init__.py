"""The library behind the programs that prepare data sets."""
