export const handler = async () => 'by type';
