"""EdgeML's policy (Zhao et al., IoTDI'21), trained on the simulator, to judge ours beside it."""
