def handler(: pass
