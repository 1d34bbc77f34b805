"""Random graphs seeded from the rules' own patterns and goldens, and the judge that looks for a wrong answer."""
