"""Students: small models that learn a teacher's scores from a sample, and then score any text without the teacher."""
