"""What tests of components lean on."""
