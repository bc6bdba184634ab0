"""SAC-d co-inference (Niu et al., 2022) as published, beside which our policy is judged."""
