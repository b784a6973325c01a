"""What processes do to each other and to the machine: signs of life, signals, locks of folders, threads."""
