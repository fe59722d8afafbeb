"""Models on Transformers and PEFT, and learning-rate schedules. Components are loaded by reference; nothing is imported here."""
