"""The verbs: each joins the rooms below into one thing a user asks for."""
