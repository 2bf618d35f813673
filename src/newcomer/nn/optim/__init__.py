"""MAP estimates and gradients in closed form."""
