from hiplan.cli import main

main()
