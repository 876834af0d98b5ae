"""What each client may call, decided from rules. Pure: text and facts go in, decisions come out."""
