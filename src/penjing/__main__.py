"""`python -m penjing`, which is `penjing` where no script of that name is on the path."""

from penjing.cli.commands import main

main()
