"""`python -m penjing`, which is `penjing` where no script of that name is on the path."""

from penjing.cli.main import main

main()
