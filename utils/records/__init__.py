"""What a training records besides its log: boards and profiles."""
