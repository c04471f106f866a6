"""Models and graphs that tests are about, and machines that they are planned for."""
