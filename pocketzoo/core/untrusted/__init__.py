"""What comes from elsewhere: how much of it there may be, and how its text is shown."""
